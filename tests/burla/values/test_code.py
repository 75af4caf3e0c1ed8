import gc
from types import CodeType

from burla.values.code import PerCode, reduce_code


def compiled(file: str, text: str = "a + 1") -> CodeType:
    found = compile(text, file, "eval")
    assert isinstance(found, CodeType)
    return found


def remade(one: CodeType) -> CodeType:
    make, arguments = reduce_code(one)
    found = make(*arguments)
    assert isinstance(found, CodeType)
    return found


def test_equal_code_of_two_files_stays_that_of_its_file() -> None:
    first, second = compiled("a.py"), compiled("b.py")
    assert first == second
    assert [remade(one).co_filename for one in (first, second, first)] == ["a.py", "b.py", "a.py"]


def test_what_was_found_out_goes_with_the_code_and_is_of_no_other_one() -> None:
    constants = PerCode(lambda code: code.co_consts)
    for number in range(50):  # many at the same address, one after the other
        one = compiled("a.py", f"a + {number}")
        assert reduce_code(one) is reduce_code(one)
        assert remade(one).co_consts == one.co_consts == constants.of(one)
        key = id(one)
        assert key in constants._known
        del one
        gc.collect()
        assert key not in constants._known
