"""What the scheduler never opens: functions, inputs and outcomes, and how they become bytes."""
