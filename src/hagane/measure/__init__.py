"""What costs time to know: matrix rates, bandwidth, real training steps. Writes the machine profile that the plan reads."""
