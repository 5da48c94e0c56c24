"""A preset whose fit takes three steps."""

PRESET = """
name: short
field: {levels: [1, 4], num_followed: 2}
weights: {node_arap: 10.0, arap: 0.0}
num_gaussians: 60
arap_reduction: mean
stages: [{name: together, steps: 3, frames_per_step: 2}]
"""
