"""What the servers speak: the wire's messages as google protobuf's classes, and the JSON form of them.

``protos/generate.py`` writes the classes. The client packs and scans the same bytes in Rust, and imports nothing from
here.
"""
