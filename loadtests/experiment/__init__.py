"""The experiment: plan, cycles, evidence, verdict, report."""
