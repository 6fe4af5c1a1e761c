"""Fine-tuning by several processes, on one machine or more: `torchrun -m slimcv …`, or accelerate launch.

Every process holds the whole network and takes its share of every batch; their gradients are added before the
weights change. Rank 0 runs the session as if it were alone, and alone decides, measures and writes. Where it
trains, or asks the teacher, it tells the others step by step what to do (slimcv.train.processes.leading), and
they follow (slimcv.train.processes.following). Machines share no files: what the others need is sent to them,
and each reads the pictures from its own disk.

torch's DistributedDataParallel is not used: it waits for the other processes where neither Ctrl-C nor the
death of one of them ends the wait. Imports no torch.
"""
