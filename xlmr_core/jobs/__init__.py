"""Jobs over files: rows of a table or lines of a text in, a file of answers out, and an interruption loses nothing.

``rows.py`` reads rows, ``answering.py`` answers them, ``results.py`` writes files of answers, ``journal.py`` keeps what
is done, and ``job.py`` puts them together. What is read and written is a table each (``READERS``, ``RESULTS``).

While a job runs its answers are in its journal, one file beside the output with a line for each row; the output is made
of that at the end and takes its place in one step. So a kill at any moment leaves whole lines of the journal, and
perhaps a part of one that is cut off, and the next start goes on behind the last.
"""

from __future__ import annotations
