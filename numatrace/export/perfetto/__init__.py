"""A trace as Perfetto's TrackEvent protobuf: threads with the nodes they ran on, and counters."""
