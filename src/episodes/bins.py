"""The bins of overlap that pairs of context views fall into, from close to very wide."""

OVERLAP_BINS = {  # lowest <= overlap < next
    "close": (0.9, 1.0),
    "medium": (0.7, 0.9),
    "wide": (0.5, 0.7),
    "very_wide": (0.3, 0.5),
}
