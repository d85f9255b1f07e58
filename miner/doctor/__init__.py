"""The check-up: facts are read at the edge, each judged by a pure function, one line a judgement."""
