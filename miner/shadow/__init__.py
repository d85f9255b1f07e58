"""A second model that scores a sample of the live requests, in a process of its own and in idle time only."""

import struct

LENGTH = struct.Struct(">I")  # of the picture that follows
