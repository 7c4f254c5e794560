"""Another installation's data into this one's database, while it goes on serving (docs/howto/move-to-citus.md).

1. `rounds.copy` makes what is here equal to what is there, part by part, each part in a transaction of its own that
   ends with equal checksums or not at all. It may be killed and run again; a later round looks only at what was written
   since the one before it began.
2. `rounds.hand_over` stops the writers of the other database, when little is left, and does a last round.
3. `rounds.verify` compares all rows of both.

Two connections: `source`, the other database, which is only read (but by standstill.py), and `owner`, this one.
"""

SOURCE, TARGET = "source", "owner"
