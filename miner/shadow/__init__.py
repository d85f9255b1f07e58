"""The shadow: a second model that scores a sample of live requests, in a process of its own, in idle time only."""

import struct

LENGTH_PREFIX = struct.Struct(">I")  # of the picture that follows
