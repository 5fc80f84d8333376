"""What the servers of this machine share: who may ask, and listening until a signal."""
