"""The service: HTTP workers, click consumer, local cluster, and the stores that the operator's tools use too."""
