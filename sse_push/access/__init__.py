"""Who may notify, who may listen, for how long, and whether there is room."""
