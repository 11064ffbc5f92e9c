"""Documents of other libraries in, the same objects out; each library is imported only by the program that uses it."""
