"""Starting workers: as an interpreter of their own, or forked from one that has imported what they need."""
