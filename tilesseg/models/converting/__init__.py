"""Files of other libraries converted: folders of parameters become programs with a spec, pickles become advice."""
