"""State machines whose only truth is a log: decide, append, replay, reply.

A decision reads state and returns records and an answer, and changes nothing. The records are
appended; `replay` is the only code that changes state, and the only code that runs when the log is
loaded; the answer leaves when the records are stored. No state machine does I/O or reads a clock.
"""
