"""The commands behind the four scripts. Importing one is cheap; torch comes in only when there is work to do."""
