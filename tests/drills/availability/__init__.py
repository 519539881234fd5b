"""How much is answered, and whether anything is lost, while parts of a cluster are killed and frozen."""
