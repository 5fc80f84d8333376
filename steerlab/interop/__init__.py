"""Vector files of other programs: one file a format, pure functions between bytes and vectors.

`foreign` is the value that every reader returns: a vector as its file states it, which becomes a
`SteeringVector` once its model and its layers are known. `recognise` tells formats apart by their
bytes; `targets` names the formats that are written.
"""
