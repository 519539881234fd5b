"""Files of other services as links to be imported: one module per source."""
