"""The one idea: units on their way through the graph, by the rules of the operators."""
