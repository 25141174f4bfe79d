"""Starting the processes of a run, and what the machine has."""
