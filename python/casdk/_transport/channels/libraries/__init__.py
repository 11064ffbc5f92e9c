"""The channels on other people's libraries, as they are: grpcio, httpx and websockets (``transport="libraries"``)."""
