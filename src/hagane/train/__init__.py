"""The one training loop: settings, schedule, steering, optimizer, checkpoints, meter, callbacks. Knows nothing of evaluation or tuning."""
