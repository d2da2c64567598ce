"""Many runs at a time: processes, Ray, populations on an accelerator."""
