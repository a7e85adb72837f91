"""Networks trained: labelled scenes split, sampled and learnt from, validated on whole scenes, written as a bundle."""
