import torch

from vol3d.patches.loader import ahead


def test_items_come_in_order_and_each_thread_computes_by_itself() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = list(ahead(lambda n: (n, torch.get_num_threads()), 3, 9, threads=2, depth=3))
        assert made == [(n, 1) for n in range(3, 9)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
