"""Motion fields: where each point of a static object is at each frame. Frame 0 is the object, exactly."""
