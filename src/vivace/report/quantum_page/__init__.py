"""What `vivace quantum` found, for people and for programs: the document, the terminal's block, the page."""
