"""What the four scripts call: flags, menus, the story of a training, evaluation, the command loop, and work on files.

Only this wing prints. Importing a command is cheap; torch comes in only when there is work to do, so there is nothing
to import from this face.
"""

__all__: list[str] = []
