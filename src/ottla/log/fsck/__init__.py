"""Checks a store that nobody has open, and repairs what can be repaired.

    findings    what is found, and what the caller knows of topics
    indexes     whether a segment's indexes agree with its batches
    partition   one partition's folder, from its first byte
    plan        what a repair is to do, as data
    repair      what is done about what was found there
    store       the whole folder

A check reads everything and changes nothing. A repair keeps all that is intact at its offset, and
moves what is not into a file beside it; nothing is thrown away but what can be made anew.
"""
