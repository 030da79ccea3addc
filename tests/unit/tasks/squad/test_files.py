"""Files of SQuAD's layout are read as they are; everything else is refused in one message that says where."""

import json

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.tasks.squad.files import Answer, check_ids, read_squad
from bert_pytorch.tasks.squad.spans import training_set
from tests.support.squad_files import article, question, write_squad

PASSAGE = "Die Brücke am Rhein was built in 1895."


def test_the_shared_articles_are_read_whole():
    bowl, dame = article("super_bowl_50"), article("notre_dame")
    assert (len(bowl.questions), len(bowl.passages)) == (810, 54)
    assert len(dame.questions) == 269
    assert bowl.questions[0].answers == (Answer("Denver Broncos", 177),) * 3


def test_several_files_are_one_set(tmp_path):
    one = write_squad(tmp_path / "1.json", (PASSAGE, [question("a", "When?", ("1895", 33))]))
    two = write_squad(tmp_path / "2.json", ("Other.", [question("b", "What?", ("Other", 0))]))
    squad = read_squad([one, two])
    assert squad.passages == (PASSAGE, "Other.")
    assert [q.passage for q in squad.questions] == [0, 1]


def test_version_2_tells_no_answer_from_no_word_about_it(tmp_path):
    path = write_squad(
        tmp_path / "2.json",
        (
            PASSAGE,
            [
                question("impossible", "?", is_impossible=True, plausible_answers=[]),
                question("contradictory", "?", ("1895", 33), is_impossible=True),
                {"id": "unlabelled", "question": "?"},
                {"id": 7, "question": "?", "is_impossible": False, "answers": []},
            ],
        ),
    )
    questions = read_squad([path]).questions
    assert [q.answers for q in questions] == [(), (), None, ()]
    assert questions[3].id == "7"


def test_half_characters_are_replaced_and_move_nothing(tmp_path):
    path = write_squad(tmp_path / "s.json", ("a\ud800b\U0001f600 c", [question("\ud900", "x\udc00?", ("c", 5))]))
    squad = read_squad([path])
    assert squad.passages == ("a\ufffdb\U0001f600 c",)
    assert (squad.questions[0].id, squad.questions[0].text) == ("\ufffd", "x\ufffd?")
    assert training_set(squad, False).places[0] == (5, 6)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"data": [', "line 1, column 11: this is not JSON"),
        (b"\xff\xfe{", "it is not UTF-8"),
        (b"[" * 100_000, "no file of SQuAD's layout"),
        (b"[]", "found a list at the top; wanted SQuAD's layout"),
        (b'{"question": "?"}', "found keys ['question'] at the top"),
        (b'{"data": []}', "there is no question in it"),
        (b'{"data": [{"title": "x"}]}', 'data[0]: "paragraphs" is missing; wanted a list'),
        (b'{"data": ["x"]}', "data[0] is a text; wanted an object with 'paragraphs'"),
        (b'{"data": [{"paragraphs": [{"context": 5, "qas": []}]}]}', '"context" is a number; wanted a text'),
        (b'{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "a"}]}]}]}', '"question" is missing'),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_message(tmp_path, content, wanted):
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_squad([path])
    assert str(error.value).startswith(f"{path}: ")
    assert wanted in str(error.value)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"id": None}, 'qas[0]: "id" is missing'),
        ({"question": ["?"]}, '"question" is a list'),
        ({"is_impossible": "yes"}, '"is_impossible" is a text; wanted true or false'),
        ({"answers": {"text": ["x"]}}, '"answers" is an object; wanted a list'),
        ({"answers": [{"text": "x"}]}, 'answers[0]: "answer_start" is missing; wanted a whole number'),
        ({"answers": [{"text": "x", "answer_start": True}]}, '"answer_start" is true or false'),
        ({"answers": [{"answer_start": 1}]}, '"text" is missing'),
    ],
)
def test_a_wrong_value_is_named_by_its_place(tmp_path, change, wanted):
    path = write_squad(tmp_path / "f.json", (PASSAGE, [{**question("a", "?", ("1895", 33)), **change}]))
    with pytest.raises(InputError) as error:
        read_squad([path])
    assert "data[0].paragraphs[0].qas[0]" in str(error.value)
    assert wanted in str(error.value)


def test_a_file_that_is_not_there_is_one_message(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match=r"Name a JSON file of SQuAD's layout\.$"):
            read_squad([path])


def test_an_id_that_stands_twice_is_refused(tmp_path):
    path = write_squad(tmp_path / "f.json", (PASSAGE, [question(name, "?", ("1895", 33)) for name in "abca"]))
    check_ids(article("notre_dame"))
    with pytest.raises(InputError, match="the id 'a' stands twice"):
        check_ids(read_squad([path]))


def test_answers_outside_their_passage_are_left_out_and_told_once(tmp_path, caplog):
    questions = [question("good", "When?", ("1895", 33)), question("bad", "When?", ("1895", 30))]
    questions += [question(f"worse {start}", "When?", ("1895", start)) for start in (-5, 35, 10**30)]
    path = write_squad(tmp_path / "f.json", (PASSAGE, questions))
    kept = training_set(read_squad([path]), False)
    assert [q.id for q in kept.squad.questions] == ["good"]
    (record,) = caplog.records
    assert "4 of 5 answers do not stand" in record.message
    assert "'bad': wanted '1895' from character 30 on, found 'in 1'" in record.message
    caplog.clear()
    training_set(read_squad([path]), False, verbose=True)
    assert [repr(q["id"]) in r.message for q, r in zip(questions[1:], caplog.records, strict=True)] == [True] * 4


def test_a_file_whose_answers_are_all_elsewhere_is_refused(tmp_path):
    bytes_not_characters = question("a", "When?", ("1895", len(PASSAGE.split("1895")[0].encode())))
    path = write_squad(tmp_path / "f.json", (PASSAGE, [bytes_not_characters]))
    with pytest.raises(InputError, match="counts characters, not bytes"):
        training_set(read_squad([path]), False)


def test_training_wants_answers(tmp_path):
    path = write_squad(tmp_path / "f.json", (PASSAGE, [question("a", "When?", is_impossible=True)]))
    with pytest.raises(InputError, match=r"1 questions have no answer, such as 'a'.*--version_2_with_negative"):
        training_set(read_squad([path]), False)
    assert training_set(read_squad([path]), True).places == (None,)
    content = json.loads(path.read_text())
    del content["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"]
    del content["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"can be predicted .*neither trained on nor evaluated"):
        training_set(read_squad([path]), True)
