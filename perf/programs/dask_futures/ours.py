from burla import remote_parallel_map


def word_lengths(number):
    return len(f"{number:,} bottles of beer".split(","))


if __name__ == "__main__":
    print(sum(remote_parallel_map(word_lengths, range(0, 2_000_000, 1000))))
