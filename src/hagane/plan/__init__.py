"""From recipe, machine profile and loss law to numbers: arithmetic without torch, so that a plan takes a second."""
