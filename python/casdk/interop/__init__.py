"""One module per library that casdk works with; each imports its library only in the program that imports it."""
