"""The check-up: facts of the machine, model, chain and daemon come in, one line a judgement goes out.

Facts are read at the edge, and each is judged by a pure function.
"""
