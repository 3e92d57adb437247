"""The type checker of the tests: annotations are checked as the code runs, and an int is a float as in any type checker."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
