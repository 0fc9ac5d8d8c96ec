"""Reading and writing files safely: the room that all others build on."""
