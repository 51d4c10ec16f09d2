"""Compilers and runtimes that take the program over. A plan holds at most one."""
