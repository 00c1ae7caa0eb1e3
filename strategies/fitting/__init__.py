"""What jobs fit that is no language model: regressions over mixtures, and domains of documents."""
