"""The wire's messages as google protobuf's classes; written by ``protos/generate.py``."""
