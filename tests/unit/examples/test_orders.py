import pytest

from examples import orders
from examples.orders import Order


def test_an_order_goes_from_the_cart_to_the_door() -> None:
    assert Order.graph.shortest_path("cart", "delivered") == ("cart", "paying", "packed", "shipped", "delivered")
    assert Order.graph.ends == {"delivered", "cancelled", "returned"}


def test_an_order_ships_by_itself_once_it_is_packed() -> None:
    assert Order.graph.hard_event("packed") == "ship"


def test_the_effect_of_pay_is_a_function_that_a_worker_can_import() -> None:
    assert orders.charge("order-42", 12) == "12 coins for order-42"


def test_wrong_use_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert orders.main(["--url", "http://localhost"]) == 2
    assert "examples.orders: URL 'http://localhost'" in capsys.readouterr().err


def test_an_unreachable_redis_is_told_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert orders.main(["--url", "redis://localhost:1/0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
