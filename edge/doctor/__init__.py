"""The doctor: examines a box, finding by finding, and says for each what to do.

It changes nothing and judges nothing by itself: each check is ok, a finding with its remedy, or
something that could not be looked at here. No engine is imported: models and guests are tried in
processes of their own.
"""
