"""What all stages share: records, tables, stages, the runner, storage, cameras, media and the command line.

Imports no stage; every stage imports this package and itself, never another stage.
"""
