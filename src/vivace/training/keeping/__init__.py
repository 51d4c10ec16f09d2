"""What a training keeps to go on from: checkpoints' files, and what the job's own code holds beside its tensors."""
