"""The process that stands before a station's sockets (serving), what it counts (talk), and what the station says of both (quota, clock)."""
