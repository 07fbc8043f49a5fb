"""Measuring what DySample brings and costs: a model beside its stock twin, in pairs. Loads nothing when imported."""
