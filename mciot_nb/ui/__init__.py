"""What a learner sees and touches: forms and displays. The only place that imports widgets or IPython."""
