"""What of a function survives its travel."""

from types import CodeType, FunctionType

from burla.values.payloads import dump_function, load_function


def outer_code(function: FunctionType) -> list[CodeType]:
    code = function.__code__
    return [code, *(const for const in code.co_consts if isinstance(const, CodeType))]


def test_code_keeps_the_name_of_its_file_and_its_lines_also_inside() -> None:
    def outer() -> object:
        def inner() -> int:
            return 1

        return inner

    came = load_function(dump_function(outer))
    assert isinstance(came, FunctionType)
    assert isinstance(outer, FunctionType)
    before, after = outer_code(outer), outer_code(came)
    assert [code.co_filename for code in after] == [__file__, __file__]
    assert [list(code.co_lines()) for code in after] == [list(code.co_lines()) for code in before]
